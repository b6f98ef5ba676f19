import type { ChannelModel } from 'amqplib';

type Destroyable = { destroy(): void };

/** Cuts the socket under a connection that does not answer to `close`. amqplib offers no call for it. */
export function destroyConnection({ connection }: ChannelModel): void {
  if ('stream' in connection && isDestroyable(connection.stream)) connection.stream.destroy();
}

function isDestroyable(value: unknown): value is Destroyable {
  return (
    typeof value === 'object' && value !== null && 'destroy' in value && typeof value.destroy === 'function'
  );
}
