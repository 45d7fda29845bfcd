"""Routes of the training service."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Header, Path, Query, Request
from fastapi.responses import Response, StreamingResponse

from kit.names import Name
from registry.client import RegistryClient
from training.jobs.campaigns.bases import known_bases
from training.jobs.campaigns.campaigns import Campaigns
from training.jobs.costs.costs import Costs
from training.jobs.errors import JobsUnavailable
from training.jobs.fleet.fleet import Fleet
from training.jobs.job import Submission
from training.jobs.jobs import Jobs
from training.jobs.quotas.quotas import Quotas
from training.jobs.settings import TrainingServiceSettings
from training.jobs.states import State
from training.jobs.triggers.tenant_rules import TenantRules
from training.service.access import authenticate, refusals
from training.service.schemas import (
    CampaignBody,
    CampaignList,
    CampaignView,
    CostList,
    CostView,
    EventList,
    EventView,
    JobDetails,
    JobPage,
    JobView,
    QuotaView,
    RulesView,
    StalenessList,
    StalenessView,
    TrainingRequestBody,
    WorkerList,
    WorkerView,
)
from training.service.streaming import MEDIA_TYPE, stream

router = APIRouter(prefix="/v1", tags=["trainings"], dependencies=[Depends(authenticate)])
_TENANT = "/tenants/{tenant}"
_JOB = "/trainings/{job_id}"
_CAMPAIGN = "/campaigns/{campaign_id}"


def _jobs(request: Request) -> Jobs:
    found: Jobs = request.app.state.jobs
    return found


def _campaigns(request: Request) -> Campaigns:
    found: Campaigns = request.app.state.campaigns
    return found


def _costs(request: Request) -> Costs:
    return Costs(request.app.state.database)


def _fleet(request: Request) -> Fleet:
    return Fleet(request.app.state.database)


def _quotas(request: Request) -> Quotas:
    return Quotas(request.app.state.database)


def _rules(request: Request) -> TenantRules:
    return TenantRules(request.app.state.database)


async def _known(request: Request) -> frozenset[str]:
    registry: RegistryClient | None = request.app.state.registry
    if registry is None:
        raise JobsUnavailable(
            "this service does not know which base models are registered: set LORRY_REGISTRY_URL and"
            " LORRY_REGISTRY_TOKEN"
        )
    return await known_bases(registry)


JobsDep = Annotated[Jobs, Depends(_jobs)]
CampaignsDep = Annotated[Campaigns, Depends(_campaigns)]
QuotasDep = Annotated[Quotas, Depends(_quotas)]
KnownBases = Annotated[frozenset[str], Depends(_known)]
RulesDep = Annotated[TenantRules, Depends(_rules)]
JobId = Annotated[str, Path(pattern="^j[0-9a-f]{32}$", description="as the submission answered it")]
CampaignId = Annotated[str, Path(pattern="^c[0-9a-f]{32}$")]
Owner = Annotated[Name | None, Query(alias="tenant", description="answer 404 for another tenant's")]
Limit = Annotated[int, Query(ge=1, le=1000)]
Before = Annotated[str | None, Query(pattern="^j[0-9a-f]{32}$", description="`next_before` of the page before")]


@router.post(_TENANT + "/users/{user}/trainings", status_code=201, responses=refusals(409, 429))
async def submit(tenant: Name, user: Name, body: TrainingRequestBody, jobs: JobsDep) -> JobView:
    """Queue a training of a user's adapter. While the user has one, others are refused (409, `job_id` names it)."""
    return JobView.of(await jobs.submit(Submission(tenant=tenant, user=user, **body.model_dump())))


@router.get("/trainings", responses=refusals())
async def list_all(
    jobs: JobsDep,
    tenant: Name | None = None,
    user: Name | None = None,
    state: Annotated[list[State] | None, Query(description="repeat it for several")] = None,
    campaign: Annotated[str | None, Query(pattern="^c[0-9a-f]{32}$")] = None,
    before: Before = None,
    limit: Limit = 100,
) -> JobPage:
    """List jobs, the latest first."""
    found = await jobs.list(
        tenant=tenant, user=user, states=state or (), campaign_id=campaign, before=before, limit=limit
    )
    full = len(found) == limit
    return JobPage(jobs=tuple(JobView.of(job) for job in found), next_before=found[-1].id if full else None)


@router.get(_JOB, responses=refusals(404))
async def show(job_id: JobId, jobs: JobsDep, owner: Owner = None) -> JobDetails:
    """Show one job, with its progress, when it will probably be done, and what its dataset is like."""
    return JobDetails.of(await jobs.get(job_id, tenant=owner), await jobs.dataset(job_id, tenant=owner))


@router.get(
    _JOB + "/events",
    response_model=EventList,
    responses={**refusals(404), 200: {"content": {MEDIA_TYPE: {"schema": {"type": "string"}}}}},
)
async def events(
    request: Request,
    job_id: JobId,
    jobs: JobsDep,
    owner: Owner = None,
    after: Annotated[int, Query(ge=0, lt=1 << 63, description="only events with larger ids")] = 0,
    last_event_id: Annotated[str | None, Header(description="of a stream that was cut", max_length=20)] = None,
    accept: Annotated[str, Header(description="`text/event-stream` streams until the job has ended")] = "",
) -> Response | EventList:
    """Return what has happened to a job; with ``Accept: text/event-stream``, also what will, with its progress."""
    job = await jobs.get(job_id, tenant=owner)
    if last_event_id is not None and last_event_id.isascii() and last_event_id.isdigit():
        after = min(max(after, int(last_event_id)), (1 << 63) - 1)
    if MEDIA_TYPE in accept:
        settings: TrainingServiceSettings = request.app.state.settings
        frames = stream(jobs, job, after=after, every_seconds=settings.training_events_seconds)
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        return StreamingResponse(frames, media_type=MEDIA_TYPE, headers=headers)
    return EventList(events=tuple(EventView.of(each) for each in await jobs.events(job.id, after=after)))


@router.post(_JOB + "/cancel", responses=refusals(404, 409))
async def cancel(job_id: JobId, jobs: JobsDep, owner: Owner = None) -> JobView:
    """End a job and remove what it has made. One that a worker holds ends at that worker's next step."""
    return JobView.of(await jobs.cancel(job_id, tenant=owner))


@router.post(_JOB + "/pause", responses=refusals(404, 409))
async def pause(job_id: JobId, jobs: JobsDep, owner: Owner = None) -> JobView:
    """Have a job wait; a training leaves a checkpoint and goes on from it."""
    return JobView.of(await jobs.pause(job_id, tenant=owner))


@router.post(_JOB + "/resume", responses=refusals(404, 409))
async def resume(job_id: JobId, jobs: JobsDep, owner: Owner = None) -> JobView:
    """Have a paused job go on."""
    return JobView.of(await jobs.resume(job_id, tenant=owner))


@router.post(_JOB + "/retry", responses=refusals(404, 409))
async def retry(job_id: JobId, jobs: JobsDep, owner: Owner = None) -> JobView:
    """Try an ended job again; a failed one goes on after the last stage that it finished."""
    return JobView.of(await jobs.retry(job_id, tenant=owner))


@router.get(_TENANT + "/training-quota", responses=refusals())
async def show_quota(tenant: Name, quotas: QuotasDep) -> QuotaView:
    """Show what a tenant may use."""
    return QuotaView.of(await quotas.get(tenant))


@router.put(_TENANT + "/training-quota", responses=refusals())
async def put_quota(tenant: Name, quota: QuotaView, quotas: QuotasDep) -> QuotaView:
    """Set what a tenant may use."""
    return QuotaView.of(await quotas.put(tenant, quota.to_quota()))


@router.get(_TENANT + "/training-rules", responses=refusals())
async def show_rules(tenant: Name, rules: RulesDep) -> RulesView:
    """Show when a tenant's users are trained without anybody asking."""
    return RulesView.of(await rules.get(tenant))


@router.put(_TENANT + "/training-rules", responses=refusals())
async def put_rules(tenant: Name, body: RulesView, rules: RulesDep) -> RulesView:
    """Set when a tenant's users are trained without anybody asking."""
    return RulesView.of(await rules.put(tenant, body.to_rules()))


@router.get(_TENANT + "/training-staleness", responses=refusals())
async def staleness(
    tenant: Name, rules: RulesDep, base: Annotated[str | None, Query(max_length=500)] = None
) -> StalenessList:
    """Show who is due for a training by the tenant's rules, and why; `base` is the one that is wanted now."""
    return StalenessList(users=tuple(StalenessView.of(each) for each in await rules.staleness(tenant, base=base)))


@router.get("/training-costs", responses=refusals())
async def costs(
    costs: Annotated[Costs, Depends(_costs)],
    by: Annotated[str, Query(pattern="^(tenant|user_id|job_id|kind)$")] = "tenant",
    tenant: Name | None = None,
    user: Name | None = None,
    job: Annotated[str | None, Query(pattern="^j[0-9a-f]{32}$")] = None,
    days: Annotated[float, Query(gt=0, le=36_500)] = 30,
) -> CostList:
    """Sum tokens, dollars and device seconds of the last days, by tenant, user, job or stage (`kind`)."""
    found = await costs.sums(tenant=tenant, user=user, job_id=job, by=by, days=days)
    return CostList(costs=tuple(CostView(**each) for each in found))


@router.get("/training-workers", responses=refusals())
async def workers(fleet: Annotated[Fleet, Depends(_fleet)]) -> WorkerList:
    """List workers, and how many jobs each holds."""
    return WorkerList(workers=tuple(WorkerView(**each) for each in await fleet.workers()))


@router.post(_TENANT + "/campaigns", status_code=201, responses=refusals(409))
async def begin_campaign(tenant: Name, body: CampaignBody, campaigns: CampaignsDep, known: KnownBases) -> CampaignView:
    """Train everybody again for a registered base, in the background; each user flips when theirs passes its gate."""
    return CampaignView.of(await campaigns.begin(tenant, known=known, **body.model_dump()))


@router.get("/campaigns", responses=refusals())
async def list_campaigns(campaigns: CampaignsDep, tenant: Name | None = None) -> CampaignList:
    """List campaigns, the latest first, with their progress."""
    return CampaignList(campaigns=tuple(CampaignView.of(each) for each in await campaigns.list(tenant=tenant)))


@router.get(_CAMPAIGN, responses=refusals(404))
async def show_campaign(campaign_id: CampaignId, campaigns: CampaignsDep, owner: Owner = None) -> CampaignView:
    """Show one campaign with its progress."""
    return CampaignView.of(await campaigns.get(campaign_id, tenant=owner))


@router.post(_CAMPAIGN + "/pause", responses=refusals(404, 409))
async def pause_campaign(campaign_id: CampaignId, campaigns: CampaignsDep, owner: Owner = None) -> CampaignView:
    """Submit no more jobs; those that were submitted go on."""
    return CampaignView.of(await campaigns.pause(campaign_id, tenant=owner))


@router.post(_CAMPAIGN + "/resume", responses=refusals(404, 409))
async def resume_campaign(campaign_id: CampaignId, campaigns: CampaignsDep, owner: Owner = None) -> CampaignView:
    """Submit jobs again."""
    return CampaignView.of(await campaigns.resume(campaign_id, tenant=owner))


@router.post(_CAMPAIGN + "/abort", responses=refusals(404, 409))
async def abort_campaign(campaign_id: CampaignId, campaigns: CampaignsDep, owner: Owner = None) -> CampaignView:
    """End a campaign and cancel its jobs; versions that are live by then stay live."""
    return CampaignView.of(await campaigns.abort(campaign_id, tenant=owner))
