"""AirwaySeg's training library: `__main__` is the command `airwayseg-train`.

`simulator` makes CTs, `data` stores cases and cuts patches, `losses` has the equations, `fit` the training loop, and
`connection` trains the connection network. `distributed`: the processes of torchrun; `workers`: worker processes.
"""
