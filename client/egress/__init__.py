"""What leaves the building: every message is written down before it is sent, and can be checked.

`recording.install` is called where a SuperNode starts; `reading.verify`, `reading.read` and
`words.words` are for people. A simulation in one process has no building to leave.
"""
