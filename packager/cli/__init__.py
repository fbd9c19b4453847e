"""The command line: one file per verb, imported when its verb is called. The only place that prints or exits."""
