"""Tests of the core of Agent and Connector."""
