"""Durable trainings: a queue in PostgreSQL, workers that survive being killed, triggers, campaigns, costs.

The rules are plain code (`states`, `dispatch`, `staleness`, `progress`); the tables stand in `models`, their SQL in
`repository`; `durable` is the only file that knows DBOS.
"""
