/** Bounds on waiting for a server that is silent: a host that went away without a word answers nothing for ever. */

/** For one statement: longer than InnoDB waits for a lock (innodb_lock_wait_timeout, 50 s), which is an answer. */
export const defaultStatementTimeoutMs = 75_000;
/** Idle connections are asked for a sign of life after this time, and once a second from then on. */
export const keepAliveDelayMs = 10_000;
export const connectTimeoutMs = 10_000;
export const farewellTimeoutMs = 2_000;
