/**
 * `Expect: 100-continue` (RFC 9110, 10.1.1) of a stream into a volume. Node tells every client to go on before a route can refuse,
 * unless its server has a listener for that. The server that Fastify makes for the second address of `localhost` can be given none,
 * but all its servers take a class of responses.
 */
import { ServerResponse, type IncomingMessage } from 'node:http';

/** Does nothing where Node tells the client of a `PUT`: its route does that, with `tellToGoOn`, once it has room for the stream. */
export class LateContinueResponse<Request extends IncomingMessage> extends ServerResponse<Request> {
  override writeContinue(): void {
    if (this.req.method !== 'PUT') super.writeContinue();
  }
}

export function tellToGoOn(response: ServerResponse): void {
  ServerResponse.prototype.writeContinue.call(response);
}
