"""Who gets a lead: the routing document, and leads given to people on entry, by hand, after a wait and after a breach."""
