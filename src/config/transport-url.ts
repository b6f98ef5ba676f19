/**
 * The URL of the message bus as oslo.messaging reads it (oslo_messaging/transport.py, TransportURL.parse):
 * `rabbit://user:password@host:port[,user:password@host:port...]/virtual_host?option=value`. User, password and virtual
 * host are percent-decoded; an IPv6 address stands in brackets; a host without credentials has none.
 */
import { BackupError } from '../model/errors.ts';
import { percentDecode } from './percent-decoding.ts';

export type BrokerHost = {
  /** A name or an address, without brackets. */
  readonly hostname: string;
  readonly port: number;
  readonly username: string;
  readonly password: string;
};

export type TransportUrl = {
  readonly scheme: string;
  readonly hosts: readonly BrokerHost[];
  /** As RabbitMQ knows it; `/` if the URL names none. */
  readonly virtualHost: string;
  /** Options that override those of [oslo_messaging_rabbit]. */
  readonly query: ReadonlyMap<string, string>;
};

const defaultPort = 5672;

/** Parses `url`. Throws `config-invalid`; the message does not contain the URL, which holds a password. */
export function parseTransportUrl(url: string): TransportUrl {
  const parts = /^([a-z][a-z0-9+.-]*):\/\/([^/?#]*)([^?#]*)(?:\?([^#]*))?(?:#.*)?$/isu.exec(url);
  if (parts === null) throw invalid('it must be rabbit://user:password@host:port/virtual_host');
  const [, scheme = '', authority = '', path = '', query = ''] = parts;
  const named = authority.split(',').filter((host) => host !== '');
  const hosts = named.map(parseHost);
  return {
    scheme: scheme.toLowerCase(),
    hosts:
      hosts.length > 0
        ? hosts
        : [{ hostname: 'localhost', port: defaultPort, username: 'guest', password: 'guest' }],
    virtualHost: percentDecode(path.slice(1)) || '/',
    query: new Map(new URLSearchParams(query)),
  };
}

function parseHost(text: string): BrokerHost {
  const at = text.lastIndexOf('@');
  const credentials = at < 0 ? '' : text.slice(0, at);
  const address = text.slice(at + 1);
  const colon = credentials.indexOf(':');
  const username = colon < 0 ? credentials : credentials.slice(0, colon);
  const password = colon < 0 ? '' : credentials.slice(colon + 1);
  return { ...parseAddress(address), username: percentDecode(username), password: percentDecode(password) };
}

function parseAddress(address: string): { readonly hostname: string; readonly port: number } {
  const bracketed = /^\[([^\]]*)\](?::(.*))?$/su.exec(address);
  if (address.startsWith('[') && bracketed === null)
    throw invalid('an IPv6 address must stand in brackets: [::1]:5672');
  const [, hostname = '', port = ''] = bracketed ?? /^([^:]*)(?::(.*))?$/su.exec(address) ?? [];
  if (hostname === '') throw invalid('a host has no name');
  if (port !== '' && !/^[0-9]{1,5}$/u.test(port))
    throw invalid(
      `the port of host ${hostname} is not a number; a ":", "/" or "@" in a password must be percent-encoded`,
    );
  const number = port === '' ? defaultPort : Number(port);
  if (number > 65535) throw invalid(`port ${number} of host ${hostname} is above 65535`);
  return { hostname, port: number };
}

function invalid(reason: string): BackupError {
  return new BackupError('config-invalid', reason);
}
