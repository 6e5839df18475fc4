"""A guard on the work of each request, delivery and publish: in counts, which do not depend on the machine."""
