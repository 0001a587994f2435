"""Operations on masks: components, holes, sparse masks, the threshold chosen for each scan."""
