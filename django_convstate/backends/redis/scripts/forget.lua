-- Remove conversations from their owner's index. Follows index_forms.lua.
-- ARGV: ids.
remove(ARGV)
return 1
