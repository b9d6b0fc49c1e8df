SELECT bidder, bid_count, window_start, last_bid + interval '10 seconds' AS window_end FROM q11
