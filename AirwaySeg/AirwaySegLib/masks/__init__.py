"""Operations on masks.

`threshold`: the threshold chosen per scan, and the airways at it. `components`: connected components, holes, opening.
`sparse_mask`: a mask as a list of its voxels. `coarse_grid`: block means of a CT, and masks on them.
"""
