A role starts with less processor time, and full garbage collections stop a running node less long.
