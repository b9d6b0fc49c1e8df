SELECT id, name, window_start FROM q8
