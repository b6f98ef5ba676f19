/** The time, injected so that tests can hold it still. All times of the project are UTC. */
export type Clock = { now(): Date };

export const systemClock: Clock = { now: () => new Date() };
