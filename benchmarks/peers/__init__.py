"""The servers that modelhost is compared with.

`NAME_server` hosts the models in one of them, run by the Python of an environment of its own, which is made from
`requirements/NAME.txt`. `systems` lists them all.
"""
