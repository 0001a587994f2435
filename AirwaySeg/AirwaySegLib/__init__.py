"""AirwaySeg's library: chest CT in, airway tree out. It imports neither Slicer nor the training library.

`__main__` is the command `airwayseg`, `commands` has one file for each command, and `pipeline` is the whole
segmentation of one CT. `settings`, `progress`, `errors` and `arguments` are shared by all packages.
"""

__version__ = "0.2.0"
