"""The lineage as Dagster assets, a module a layer: demos, rollouts, world model, policies, evaluation.

An asset runs exactly one DVC stage and computes nothing itself. `dvc_project` is the only module that knows DVC.
"""
