"""Simulated chest CTs; `simulate` makes a whole case.

`patient`, `organs` and `hilum`: anatomy. `growth` and `bronchi`: airways; `vessels`; `airway_disease`; `lung_density`.
`scene` and `rendering` draw them; `scanner`, `noise` and `slabs` turn the drawing into a CT.
"""
