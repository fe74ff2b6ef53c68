"""The outputs of a node's reports: the event log."""
