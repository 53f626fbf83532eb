"""What is told of drills: a report as data, merged from shards if need be, and a page that shows what happened."""
