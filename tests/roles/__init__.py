"""Tests of the roles as services of twistd."""
