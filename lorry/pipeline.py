"""The pipeline in order: what each command runs, with its progress shown.

import → build-dataset → train → evaluate → publish → extract. Read `run_everything` first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.text import Text

from kit.names import check_name
from kit.words import counted
from lorry.context import Context, base_directory, open_context
from lorry.output import Bar, err, print_table, progress, say
from lorry.settings import LorrySettings
from lorry.stages.building import build_user_dataset, current_directory, estimate_writing, require_dataset
from lorry.stages.claims import require_nobody_else_trains
from lorry.stages.extracting import extract_user_profile, profile_directory
from lorry.stages.importing import Imported, import_transcripts
from registry.manifest import AdapterRef, Owner
from serving.extraction.profile import Profile
from training.config import ResolvedConfig, TrainingRequest, resolve
from training.dataset import Dataset, read_report, read_writing
from training.errors import ConfigInvalid
from transcripts.importer import CHITCHAT

if TYPE_CHECKING:
    from training.evaluation import EvaluationReport, UserEvaluation
    from training.publishing import Published
    from training.trainer import TrainedAdapter

_MATRIX_USERS = 4  # more columns would not fit a terminal


async def run_everything(
    user: str,
    *,
    path: str | None,
    format: str | None,
    user_speaker: str | None,
    config: Path | None,
    settings: Sequence[str],
    on_imported: Callable[[Imported], None],
) -> dict[str, Any]:
    """Go from transcripts to a profile; every stage that was done with the same inputs is reused.

    `on_imported` is told what the import did, before anything is made of it.
    """
    resolved = resolve_config(config, settings)
    check_name(user, field="user_id")
    async with open_context() as context:
        await require_nobody_else_trains(context, [user])
        imported: Imported | None = None
        if path is not None:
            imported = await import_with_bar(context, user=user, path=path, format=format, user_speaker=user_speaker)
            on_imported(imported)
        dataset = await build_with_bar(context, user=user, config=resolved)
        trained, everybody = await train_and_publish(context, {user: dataset}, config=resolved)
        published = everybody[user]
        published.require_live()
        profile = (await extract_profiles(context, [user], force=False))[user]
        run = {"run_directory": str(trained[user].directory), "evaluation": published.evaluation}
        return {**describe_profile(context, profile), **run, "import": imported.to_json() if imported else None}


async def run_import(
    user: str, *, path: str, format: str | None, user_speaker: str | None, keep_pasted: bool = False
) -> Imported:
    """`lorry import`."""
    check_name(user, field="user_id")
    async with open_context() as context:
        return await import_with_bar(
            context, user=user, path=path, format=format, user_speaker=user_speaker, keep_pasted=keep_pasted
        )


async def run_build_dataset(
    user: str, *, config: Path | None, settings: Sequence[str], output: Path | None, score: bool
) -> dict[str, Any]:
    """`lorry build-dataset`."""
    resolved = resolve_config(config, settings)
    if score and resolved.dataset.on_platitude == "ignore":
        raise ConfigInvalid(
            "--score asks the base to find platitudes, and dataset.on_platitude is ignore: set it to warn or drop",
            field="dataset.on_platitude",
        )
    async with open_context() as context:
        dataset = await build_with_bar(context, user=user, config=resolved, directory=output, score=score)
        directory = output or current_directory(context, user=user)
    assert directory is not None
    report = read_report(directory)
    quality = {"dropped": report.dropped, "warnings": report.warnings, "scored": len(report.losses)} if report else None
    written = {"question_writer": dataset.question_writer, "redaction": dict(dataset.redaction or {}).get("counts")}
    return {
        "user": user,
        "digest": dataset.digest,
        **dataset.counts,
        **written,
        "writing": read_writing(directory),
        "quality": quality,
        "directory": str(directory),
    }


async def run_estimate(user: str, *, config: Path | None, settings: Sequence[str]) -> dict[str, Any]:
    """`lorry build-dataset --estimate`: what having the questions written would cost; nothing is bought."""
    resolved = resolve_config(config, settings)
    async with open_context() as context:
        cost = await estimate_writing(context, user=user, config=resolved)
    return {"user": user, "writer": resolved.dataset.writer, **cost.to_json()}


async def build_with_bar(
    context: Context, *, user: str, config: ResolvedConfig, directory: Path | None = None, score: bool = False
) -> Dataset:
    """Build a user's dataset, with a bar while a remote writer works, and one while the base is asked, if it is."""
    buys = config.dataset.writer != "extractive"
    if not buys and not score:
        return await build_user_dataset(context, user=user, config=config, directory=directory)
    with progress() as bars:
        writing = Bar(bars, f"{config.dataset.writer} writes questions") if buys else None
        scoring = Bar(bars, "asking the base about examples", waits=True) if score else None
        dataset = await build_user_dataset(
            context, user=user, config=config, directory=directory, on_writing=writing, on_score=scoring
        )
        for bar in filter(None, (writing, scoring)):
            bar.finish(counted(len(dataset.train), "example"))
        return dataset


async def run_train(
    users: Sequence[str], *, config: Path | None, settings: Sequence[str], dataset: Path | None, publish: bool
) -> dict[str, Any]:
    """`lorry train`: returns what became of every user's training, by user."""
    resolved = resolve_config(config, settings)
    if dataset is not None and len(users) != 1:
        raise ConfigInvalid("--dataset names one user's dataset; name one user", field="--dataset")
    async with open_context() as context:
        await require_nobody_else_trains(context, users)
        datasets = {user: require_dataset(context, user=user, directory=dataset) for user in users}
        for user, each in datasets.items():
            _require_built_with(resolved, each, user=user)
        trained = await train_with_bars(context, datasets, config=resolved)
        report = await evaluate_with_bar(context, trained, datasets)
        published = await publish_users(context, trained, report, config=resolved) if publish else {}
    return {user: _describe_run(run, report.users[user], published.get(user)) for user, run in trained.items()}


async def run_extract(user: str, *, force: bool) -> dict[str, Any]:
    """`lorry extract`."""
    async with open_context() as context:
        profile = (await extract_profiles(context, [user], force=force))[user]
        return describe_profile(context, profile)


async def import_with_bar(
    context: Context,
    *,
    user: str,
    path: str,
    format: str | None,
    user_speaker: str | None,
    keep_pasted: bool = False,
) -> Imported:
    """Import what `path` names: a file, a directory, or the word for the packaged data set."""
    source: Path | str = path if path == CHITCHAT else Path(path)
    with progress() as bars:
        bar = Bar(bars, "importing transcripts")
        imported = await import_transcripts(
            context,
            user=user,
            path=source,
            format=format,
            user_speaker=user_speaker,
            keep_pasted=keep_pasted,
            on_progress=lambda number: bar(number, 0),
        )
        bar.finish(f"{imported.added.new} new, {imported.added.known} known")
        return imported


async def train_and_publish(
    context: Context, datasets: Mapping[str, Dataset], *, config: ResolvedConfig
) -> tuple[dict[str, TrainedAdapter], dict[str, Published]]:
    """Train, evaluate against one another, show the tables, publish; have the engine run by then.

    Evaluating keeps one core busy, and an engine takes most of a minute to start: it does so meanwhile.
    """
    trained = await train_with_bars(context, datasets, config=config)
    async with context.stack.starting("engine"):
        report = await evaluate_with_bar(context, trained, datasets)
        return trained, await publish_users(context, trained, report, config=config)


async def train_with_bars(
    context: Context, datasets: Mapping[str, Dataset], *, config: ResolvedConfig
) -> dict[str, TrainedAdapter]:
    """Train every user, with a bar for each."""
    from lorry.stages.training import train_users  # torch is imported only by what needs it

    with progress() as bars:
        steps = {user: Bar(bars, f"training {user}", waits=number > 0) for number, user in enumerate(datasets)}

        def on_step(user: str, step: int, total: int, loss: float) -> None:
            steps[user](step, total, f"loss {loss:.2f}")

        trained = await train_users(context, datasets, config=config, on_step=on_step)
        for user, bar in steps.items():
            record = trained[user].record
            bar.finish(f"loss {record.losses[-1]:.2f}", total=record.steps)
    return trained


async def evaluate_with_bar(
    context: Context, trained: Mapping[str, TrainedAdapter], datasets: Mapping[str, Dataset]
) -> EvaluationReport:
    """Score everybody's held-out replies, with a bar; show the tables."""
    from lorry.stages.training import evaluate_users

    with progress() as bars:
        scoring = Bar(bars, "evaluating on held-out turns")
        report = await evaluate_users(context, trained, datasets, on_score=scoring)
        scoring.finish()
    show_evaluation(report)
    return report


async def publish_users(
    context: Context, trained: Mapping[str, TrainedAdapter], report: EvaluationReport, *, config: ResolvedConfig
) -> dict[str, Published]:
    """Publish every user's version and move `live` where the gate allows, saying so."""
    from training.publishing import publish

    published: dict[str, Published] = {}
    with progress() as bars:
        bar = Bar(bars, "publishing", total=len(trained))
        for number, (user, run) in enumerate(trained.items(), 1):
            owner = Owner.named(tenant=context.settings.tenant, user=user)
            published[user] = await publish(
                run,
                report.users[user],
                owner=owner,
                registry=context.registry,
                policy=config.gate,
                base_directory=base_directory(context.plan),
            )
            bar(number, len(trained), f"{user} version {published[user].manifest.version}")
    for user, each in published.items():
        if each.why_not:
            standing = "stays live, and does not pass now" if each.live else "is kept but not live"
            say(Text(f"{user}: version {each.manifest.version} {standing}: {each.why_not}"))
    return published


async def extract_profiles(context: Context, users: Sequence[str], *, force: bool) -> dict[str, Profile]:
    """Have the engine run and extract every user's profile, one after the other.

    Raises:
        AdapterNotFound, AliasNotFound: somebody has nothing live; the engine is not started then.
    """
    for user in users:
        await context.registry.resolve(AdapterRef(owner=Owner.named(tenant=context.settings.tenant, user=user)))
    if context.stack.will_start("engine"):
        say("starting the engine …")
    await context.stack.ensure("engine")
    profiles: dict[str, Profile] = {}
    with progress() as bars:
        for user in users:
            bar = Bar(bars, f"extracting {user}")
            profiles[user] = await extract_user_profile(context, user=user, force=force, on_progress=bar)
            bar.finish(counted(_count(profiles[user]), "statement"))
    return profiles


def show_evaluation(report: EvaluationReport) -> None:
    """Print held-out loss under all rivals, what the adapters cost, and all adapters against everybody's turns."""
    rows = [
        [
            user,
            str(each.n_examples),
            f"{each.base_loss:.3f}",
            "—" if each.profile_loss is None else f"{each.profile_loss:.3f}",
            *([] if report.start_gain is None else ["—" if each.start_loss is None else f"{each.start_loss:.3f}"]),
            f"{each.own_loss:.3f}",
            f"{each.gain:+.3f}",
        ]
        for user, each in report.users.items()
    ]
    start = [] if report.start_gain is None else ["what it began with"]
    columns = ["user", "held-out replies", "base", "base + profile", *start, "own adapter", "gain"]
    title = "Held-out loss (nats per token)"
    print_table(title, columns, rows, numeric=frozenset(columns[1:]), whole=frozenset(columns[:1]), on=err)
    columns = ["user", "general loss", "yes/no right", "says yes", "secrets out", "longest span out"]
    rows = [_cost_row(user, each) for user, each in report.users.items()]
    title = "What the adapters cost"
    print_table(title, columns, rows, numeric=frozenset(columns[1:]), whole=frozenset(columns[:1]), on=err)
    for user, each in report.users.items():
        if each.rivals_left_out:
            say(Text(f"{user}: {counted(each.rivals_left_out, 'rival')} could not be read and is not compared with"))
    if len(report.users) < 2:
        return
    names = list(report.users)
    matrix: list[Sequence[str | Text]] = [
        [user, *(_cell(report, user, adapter) for adapter in names), "yes" if each.identified else "no"]
        for user, each in report.users.items()
    ]
    columns = ["turns of", *(f"adapter of {name}" for name in names), "own is best"]
    if len(names) > _MATRIX_USERS:
        matrix = [_summary_row(user, each) for user, each in report.users.items()]
        columns = ["turns of", "own adapter", "best other", "mean of others", "own is best"]
    print_table(
        "Own adapter versus others (nats per token)",
        columns,
        matrix,
        numeric=frozenset(columns[1:-1]),
        whole=frozenset(columns[:1]),
        on=err,
    )


def _cost_row(user: str, evaluation: UserEvaluation) -> list[str]:
    """Return what an adapter cost: shares in per cent, secrets of those tried, the longest verbatim span in tokens."""
    general, yes_no, leaks = evaluation.general, evaluation.yes_no, evaluation.leaks
    return [
        user,
        f"{100 * general.loss:+.1f} %" if general else "—",
        f"{100 * yes_no.accuracy:.0f} %" if yes_no else "—",
        f"{100 * yes_no.yes_rate:.0f} %" if yes_no else "—",
        f"{leaks.extracted} of {leaks.secrets + leaks.canaries}" if leaks else "—",
        f"{leaks.longest_verbatim_tokens} tokens" if leaks else "—",
    ]


def _summary_row(user: str, evaluation: UserEvaluation) -> list[str]:
    others = list(evaluation.other_losses.values())
    losses = (evaluation.own_loss, min(others), sum(others) / len(others))
    return [user, *(f"{loss:.3f}" for loss in losses), "yes" if evaluation.identified else "no"]


def describe_profile(context: Context, profile: Profile) -> dict[str, Any]:
    """Return what the command reports of a profile."""
    directory = profile_directory(context.home, tenant=context.settings.tenant, user=profile.user)
    return {
        "user": profile.user,
        "version": profile.adapter.version,
        "version_id": profile.adapter.version_id,
        "statements": _count(profile),
        "directory": str(directory),
    }


def resolve_config(path: Path | None, settings: Sequence[str]) -> ResolvedConfig:
    """Return the complete configuration from a person's file and ``key=value`` arguments.

    LORRY_BASE_MODEL is the base, and LORRY_THREADS counts where neither says how many threads.

    Raises:
        ConfigInvalid: naming file, key and reason; for a rank that could not be served, before anything is trained.
        SettingsInvalid: naming the variable and the reason.
    """
    own = LorrySettings.read()
    arguments: dict[str, Any] = {}
    for setting in settings:
        key, separator, value = setting.partition("=")
        if not separator:
            raise ConfigInvalid(f"--set {setting!r} must be key=value", field=setting)
        arguments[key] = value
    request = TrainingRequest.read(path) if path else TrainingRequest()
    if "base" in arguments or "base" in request.training:
        raise ConfigInvalid("base: the engine has to run the same one; set LORRY_BASE_MODEL", field="base")
    environment = {"base": own.base_model, "threads": own.threads}
    resolved = resolve(request, arguments=arguments, environment=environment, bounds=own.gate_bounds())
    if resolved.training.rank > own.max_lora_rank:
        raise ConfigInvalid(
            f"rank: {resolved.training.rank} is more than the {own.max_lora_rank} that registry and engine take;"
            " raise LORRY_MAX_LORA_RANK",
            field="rank",
        )
    return resolved


def _require_built_with(config: ResolvedConfig, dataset: Dataset, *, user: str) -> None:
    """Refuse a setting of the dataset that is not the one it was built with: a training changes no dataset.

    Raises:
        ConfigInvalid: naming the setting and both values.
    """
    for name in type(dataset.config).model_fields:
        key, asked, built = f"dataset.{name}", getattr(config.dataset, name), getattr(dataset.config, name)
        follows = name == "seed" and asked == config.training.seed  # what is said of the training counts for both
        if config.origins[key] in {"argument", "file"} and asked != built and not follows:
            raise ConfigInvalid(
                f"{key} is to be {asked}, and the dataset of {user} was built with {built}: "
                f"build it again with `lorry build-dataset {user} --set {key}={asked}`, or leave that out",
                field=key,
            )


def _describe_run(run: TrainedAdapter, evaluation: UserEvaluation, published: Published | None) -> dict[str, Any]:
    """Return what became of one user's training; with a version, its evaluation has the gate's decision as well."""
    from training.publishing import evaluation_for_manifest

    described: dict[str, Any] = {
        "run_directory": str(run.directory),
        "adapter_directory": str(run.adapter_directory),
        "evaluation": evaluation_for_manifest(evaluation),
    }
    if published is not None:
        described |= {
            "version": published.manifest.version,
            "version_id": published.manifest.version_id,
            "live": published.live,
            "gate": published.decision.to_json(),
            "evaluation": published.evaluation,
        }
    return described


def _cell(report: EvaluationReport, user: str, adapter: str) -> Text:
    evaluation = report.users[user]
    loss = evaluation.own_loss if adapter == user else evaluation.other_losses[adapter]
    return Text(f"{loss:.3f}", "bold" if adapter == user else "")


def _count(profile: Profile) -> int:
    return sum(len(section.statements) for section in profile.topics)
