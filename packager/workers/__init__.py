"""Steps that run in a process of their own; see `packager.worker`. None of them imports edgepack."""
