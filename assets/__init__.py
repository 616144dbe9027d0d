"""The lineage as Dagster assets, a module a layer: demos, rollouts, world model, policies, evaluation.

An asset runs exactly one DVC stage and computes nothing itself. Only `dvc_project`, `dvc_lock` and `purge` know DVC.
"""
