SELECT auction, bidder, 0.908 * price AS price, occurred_at FROM bid;
