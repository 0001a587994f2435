"""The commands of `airwayseg`, one file each: read, call the library, write."""
