"""Run by Airflow's own Python: what it makes of a folder of DAGs, as JSON on stdout.

`airflow_probe.py FOLDER FIRST LAST`, both instants in ISO 8601.
"""

from __future__ import annotations

import json
import sys
from datetime import datetime
from typing import Any

import pendulum
from airflow.dag_processing.dagbag import DagBag
from airflow.serialization.serialized_objects import DagSerialization

folder, first, last = sys.argv[1:]
window = [pendulum.instance(datetime.fromisoformat(each)) for each in (first, last)]
bag = DagBag(folder)
dags: dict[str, Any] = {}
for dag in bag.dags.values():
    stored = DagSerialization.from_dict(DagSerialization.to_dict(dag))
    runs = stored.iter_dagrun_infos_between(*window)
    dags[dag.dag_id] = {
        "slots": [run.logical_date.isoformat() for run in runs],
        "catchup": stored.catchup,
        "tasks": {task.task_id: sorted(task.upstream_task_ids) for task in dag.tasks},
        "seconds": {task.task_id: task.execution_timeout.total_seconds() for task in dag.tasks},
    }
errors = {str(file): str(error) for file, error in bag.import_errors.items()}
sys.stdout.write(json.dumps({"errors": errors, "dags": dags}) + "\n")
