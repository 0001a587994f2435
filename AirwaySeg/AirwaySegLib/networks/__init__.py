"""The networks, their weights, and how they run on a GPU or a CPU.

`architectures`: the table of the networks that segment, of which `wingsnet` is one; `plugins` adds others.
`connection_net` joins fragments. `weights`: weights files. `sliding_window`: a network on a whole
scan. `device_plan`: choice of device, precision and batch. `openvino_backend`: WingsNet on a CPU.
"""
