"""Speed as ratios: each row runs two ways of the same work side by side, in one process, in turns.

`setting` says on what, `timing` how; `training`, `parts`, `sweeps`, `devices` and `gpu` hold the rows, `report` shows
them. Images are random: no speed here depends on what they show.
"""
