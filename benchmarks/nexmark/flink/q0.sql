SELECT auction, bidder, price, channel, url, occurred_at FROM bid;
