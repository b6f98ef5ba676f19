/** What the standalone service and the thread of its agent say to each other. */
import type { ErrorCode } from '../model/errors.ts';

export type AgentThreadSettings = {
  readonly directory: string;
  readonly backendName: string;
  readonly token: string;
  readonly maxStreams: number;
  readonly maxSnapshots: number;
  readonly logLevel: string;
};

export type FromAgentThread =
  | { readonly kind: 'ready'; readonly url: string }
  | { readonly kind: 'failed'; readonly code: ErrorCode; readonly message: string }
  /** A line of its log, as JSON. */
  | { readonly kind: 'log'; readonly line: string };
