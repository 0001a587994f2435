"""Training of the segmentation network.

`recipes` and `settings`: what is trained. `loop` and `steps`: the training loop (`stage_loss`, `patches`).
`checkpoint`, `training_state`, `run_folder`, `run_log`: the run on disk. `validation`: held-out cases. `finetune`,
`rehearsal`: fine-tuning. `hard_skeleton`: missed skeleton. `machine`, `team_norm`: precision, workers, several
processes.
"""
