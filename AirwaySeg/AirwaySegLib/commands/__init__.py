"""The commands of `airwayseg`, one file each: read the files, call the library, write the results.

`segment` (one CT or a batch), `repair`, `measure`, `evaluate` and `weights` (list, show, import). The options are in
`AirwaySegLib.__main__`.
"""
