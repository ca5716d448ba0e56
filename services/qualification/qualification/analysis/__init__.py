"""Questions to the history of all leads: what another definition would have done, and what sales made of the leads it got."""
