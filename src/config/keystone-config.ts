/** Credentials at Keystone, and the key manager. A section without `auth_url` and `auth_type` gives none. */
import {
  authTokenOptions,
  barbicanOptions,
  barbicanServiceUserOptions,
  keyManagerOptions,
  keystoneAuthOptions,
  serviceUserOptions,
} from './keystone-options.ts';
import type { ValuesOf } from './option.ts';
import type { Settings } from './settings.ts';

export type Scope = {
  readonly projectName: string | undefined;
  readonly projectId: string | undefined;
  readonly projectDomainName: string | undefined;
  readonly projectDomainId: string | undefined;
  readonly systemScope: string | undefined;
};

export type KeystoneCredentials = {
  readonly authUrl: string;
  readonly identity:
    | {
        readonly kind: 'password';
        readonly username: string | undefined;
        readonly userId: string | undefined;
        readonly password: string;
        readonly userDomainName: string | undefined;
        readonly userDomainId: string | undefined;
        readonly scope: Scope;
      }
    | {
        readonly kind: 'application-credential';
        readonly id: string | undefined;
        readonly name: string | undefined;
        readonly secret: string;
        readonly username: string | undefined;
        readonly userDomainName: string | undefined;
      };
  readonly caFile: string | undefined;
  readonly certFile: string | undefined;
  readonly keyFile: string | undefined;
  readonly insecure: boolean;
  readonly timeoutMs: number | undefined;
};

export type KeyManagerConfig =
  | {
      readonly kind: 'barbican';
      /** Undefined: from the service catalog. */
      readonly endpoint: string | undefined;
      readonly endpointType: 'public' | 'internal' | 'admin';
      readonly regionName: string | undefined;
      readonly verifyTls: boolean;
      readonly caFile: string | undefined;
      /** Part of the URL; undefined: that of the endpoint, else `v1`. */
      readonly apiVersion: string | undefined;
      /** Whose token goes beside the user's; undefined: none does. */
      readonly serviceUser: KeystoneCredentials | undefined;
    }
  /** Keys that cinder-delta cannot clone: encrypted volumes are refused with this reason. */
  | { readonly kind: 'unsupported'; readonly backend: string };

/**
 * The credentials of the service itself, or undefined if [keystone_authtoken] gives none. An incomplete section is only warned of:
 * cinder-backup starts with it, since it is the API that needs it.
 */
export function readOwnCredentials(settings: Settings): KeystoneCredentials | undefined {
  const options = settings.read('keystone_authtoken', authTokenOptions);
  let isComplete = true;
  const credentials = credentialsOf(settings, 'keystone_authtoken', options, (section, option, reason) => {
    isComplete = false;
    settings.warnings.push(`[${section}] ${option}: ${reason}; as it is, [keystone_authtoken] is not used`);
  });
  return isComplete ? credentials : undefined;
}

/** The credentials whose token goes with users' tokens, or undefined if `send_service_user_token` is false. */
export function readServiceUser(settings: Settings): KeystoneCredentials | undefined {
  const options = settings.read('service_user', serviceUserOptions);
  const credentials = credentialsOf(settings, 'service_user', options);
  if (!options.send_service_user_token) return undefined;
  if (credentials === undefined) {
    settings.reject('service_user', 'auth_url', 'it must be set: send_service_user_token is true');
  }
  return credentials;
}

export function readKeyManager(settings: Settings): KeyManagerConfig {
  const { backend } = settings.read('key_manager', keyManagerOptions);
  const options = settings.read('barbican', barbicanOptions);
  const isBarbican = backend === 'barbican' || /barbican/iu.test(backend);
  if (!isBarbican) return { kind: 'unsupported', backend };
  const type = options.barbican_endpoint_type;
  return {
    kind: 'barbican',
    endpoint: options.barbican_endpoint,
    endpointType: type === 'internal' || type === 'admin' ? type : 'public',
    regionName: options.barbican_region_name,
    verifyTls: options.verify_ssl,
    caFile: options.verify_ssl_path,
    apiVersion: options.barbican_api_version,
    serviceUser: options.send_service_user_token ? readBarbicanServiceUser(settings) : undefined,
  };
}

function readBarbicanServiceUser(settings: Settings): KeystoneCredentials | undefined {
  const section = 'barbican_service_user';
  const credentials = credentialsOf(settings, section, settings.read(section, barbicanServiceUserOptions));
  if (credentials === undefined) {
    settings.reject(section, 'auth_url', 'it must be set: [barbican] send_service_user_token is true');
  }
  return credentials;
}

type AuthValues = ValuesOf<typeof keystoneAuthOptions>;

type Complain = (section: string, option: string, reason: string) => void;

function credentialsOf(
  settings: Settings,
  section: string,
  own: AuthValues,
  complain: Complain = (...about) => settings.reject(...about),
): KeystoneCredentials | undefined {
  const shared = own.auth_section;
  if (shared !== undefined && shared !== section) {
    const other = settings.read(shared, keystoneAuthOptions);
    return credentialsOf(settings, shared, { ...other, auth_section: undefined }, complain);
  }
  if (own.auth_url === undefined && own.auth_type === undefined && own.username === undefined)
    return undefined;
  const reject = (option: keyof AuthValues, reason: string) => complain(section, option, reason);
  if (own.auth_url === undefined) reject('auth_url', 'it must be set: http(s)://keystone:5000/v3');
  const base = {
    authUrl: own.auth_url ?? '',
    caFile: own.cafile,
    certFile: own.certfile,
    keyFile: own.keyfile,
    insecure: own.insecure,
    timeoutMs: own.timeout === undefined ? undefined : own.timeout * 1000,
  };
  const type = own.auth_type ?? 'password';
  if (type === 'v3applicationcredential') {
    if (own.application_credential_secret === undefined)
      reject('application_credential_secret', 'it must be set');
    return {
      ...base,
      identity: {
        kind: 'application-credential',
        id: own.application_credential_id,
        name: own.application_credential_name,
        secret: own.application_credential_secret ?? '',
        username: own.username,
        userDomainName: own.user_domain_name ?? own.default_domain_name,
      },
    };
  }
  if (type !== 'password' && type !== 'v3password') {
    reject('auth_type', 'it must be password or v3applicationcredential');
  }
  if (own.username === undefined && own.user_id === undefined)
    reject('username', 'it or user_id must be set');
  if (own.password === undefined) reject('password', 'it must be set');
  return {
    ...base,
    identity: {
      kind: 'password',
      username: own.username,
      userId: own.user_id,
      password: own.password ?? '',
      userDomainName: own.user_domain_name ?? own.default_domain_name,
      userDomainId: own.user_domain_id ?? own.default_domain_id,
      scope: {
        projectName: own.project_name,
        projectId: own.project_id,
        projectDomainName: own.project_domain_name ?? own.default_domain_name,
        projectDomainId: own.project_domain_id ?? own.default_domain_id,
        systemScope: own.system_scope,
      },
    },
  };
}
