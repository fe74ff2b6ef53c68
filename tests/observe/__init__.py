"""Tests of the outputs of a node's reports."""
