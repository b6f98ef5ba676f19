/** Copies of encryption keys, as [key_manager] and [barbican] say, with the rights of whoever asks. */
import type { BusContext } from '../bus/bus-context.ts';
import type { KeyManagerConfig, KeystoneCredentials } from '../config/keystone-config.ts';
import type { KeyCopies } from '../manager/cloud.ts';
import { BackupError } from '../model/errors.ts';
import { createBarbican } from '../openstack/barbican.ts';
import { createHttp, type Http } from '../openstack/http.ts';
import { keystoneV3 } from '../openstack/log-in.ts';
import { createTokenSource, type TokenSource } from '../openstack/token-source.ts';

export type Keys = {
  /** For the work on one request. */
  keysOf(context: BusContext): KeyCopies;
  close(): Promise<void>;
};

const connectTimeoutMs = 10_000;
const idleTimeoutMs = 60_000;
const retryPolicy = { attempts: 4, firstDelayMs: 500, maxDelayMs: 4000 };

/** Connects nowhere yet. `own` are the credentials of [keystone_authtoken], with which Cinder removes what a user may not. */
export function openKeys(config: KeyManagerConfig, own: KeystoneCredentials | undefined): Keys {
  if (config.kind === 'unsupported') {
    const keys = withoutBarbican(config.backend);
    return { keysOf: () => keys, close: async () => await Promise.resolve() };
  }
  const opened: Http[] = [];
  const barbican = createHttp({
    service: {
      name: 'Barbican',
      urlOption: '[barbican] barbican_endpoint',
      caOption: '[barbican] verify_ssl_path',
      insecureOption: '[barbican] verify_ssl = false',
    },
    connections: null,
    connectTimeoutMs,
    idleTimeoutMs,
    caFile: config.caFile,
    insecure: !config.verifyTls,
  });
  opened.push(barbican);

  const tokensOf = (section: string, credentials: KeystoneCredentials | undefined): TokenSource | null => {
    if (credentials === undefined) return null;
    const keystone = keystoneHttp(section, credentials);
    opened.push(keystone);
    return createTokenSource(keystoneV3(keystone, credentials.authUrl, credentials.identity), () =>
      Date.now(),
    );
  };
  const serviceUser = tokensOf('barbican_service_user', config.serviceUser);
  const ownCredentials = tokensOf('keystone_authtoken', own);

  return {
    keysOf({ authToken, items }) {
      const keys = createBarbican({
        options: config,
        http: barbican,
        caller: authToken === null ? null : { authToken, serviceCatalog: items['service_catalog'] },
        serviceUser,
        ownCredentials,
        retryPolicy,
      });
      return {
        clone: (keyId, signal) => keys.clone(keyId, signal),
        remove: removeUnlessFixed((keyId, signal) => keys.remove(keyId, signal)),
      };
    },
    async close() {
      await Promise.all(opened.map((http) => http.close()));
    },
  };
}

function keystoneHttp(section: string, credentials: KeystoneCredentials): Http {
  return createHttp({
    service: {
      name: 'Keystone',
      urlOption: `[${section}] auth_url`,
      caOption: `[${section}] cafile`,
      insecureOption: `[${section}] insecure`,
    },
    connections: null,
    connectTimeoutMs: credentials.timeoutMs ?? connectTimeoutMs,
    idleTimeoutMs: credentials.timeoutMs ?? idleTimeoutMs,
    caFile: credentials.caFile,
    insecure: credentials.insecure,
    clientFiles: { cert: credentials.certFile, key: credentials.keyFile },
  });
}

/**
 * The id of the one key that stands in the configuration (cinder/keymgr/conf_key_mgr.py, fixed_key): all volumes have it, and
 * nobody removes it, whatever the key manager is by now.
 */
const fixedKeyId = '00000000-0000-0000-0000-000000000000';

function removeUnlessFixed(remove: KeyCopies['remove']): KeyCopies['remove'] {
  return async (keyId, signal) => {
    if (keyId !== fixedKeyId) await remove(keyId, signal);
  };
}

/** Where keys are not Barbican's: a copy of the fixed key is that key, anything else is refused. */
function withoutBarbican(backend: string): KeyCopies {
  const isFixed = /conf_?key_?m/iu.test(backend);
  const refuse = (keyId: string) =>
    new BackupError(
      'state-invalid',
      `the volume is encrypted with key ${keyId}, and [key_manager] backend is ${backend}: cinder-delta copies and removes keys through Barbican only (backend = barbican)`,
    );
  return {
    clone: async (keyId) => {
      await Promise.resolve();
      if (isFixed && keyId === fixedKeyId) return keyId;
      throw refuse(keyId);
    },
    remove: removeUnlessFixed(async (keyId) => await Promise.reject(refuse(keyId))),
  };
}
