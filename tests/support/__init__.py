"""What tests share: servers, sites, backends that misbehave."""
