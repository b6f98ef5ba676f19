/** Who asks: the part of Cinder's RequestContext that rows and messages need. */
export type RequestContext = {
  readonly projectId: string;
  readonly userId: string;
  /** `req-<uuid>`. */
  readonly requestId: string;
};
