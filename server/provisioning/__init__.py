"""Making a federation: keys, certificates and one start kit per site and for the coordinator."""
