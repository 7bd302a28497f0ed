"""Files to which lines are only ever added, each line bound to the one above by a hash.

The egress ledger (`client.egress`) and the privacy ledger (`client.privacy`) are such files.
"""
