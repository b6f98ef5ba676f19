/**
 * Credentials at Keystone and the key manager: names, types and defaults of keystoneauth (loading/), keystonemiddleware
 * (auth_token/_opts.py), cinder/service_auth.py, and castellan (options.py, key_manager/barbican_key_manager.py).
 */
import { choice, flag, integer, list, text } from './option.ts';

/** What every section with keystoneauth credentials has. */
export const keystoneAuthOptions = {
  auth_type: text({ aliases: [{ name: 'auth_plugin' }] }),
  auth_section: text(),
  auth_url: text({ aliases: [{ name: 'auth-url' }] }),
  username: text({ aliases: [{ name: 'user-name' }, { name: 'user_name' }] }),
  user_id: text({ aliases: [{ name: 'user-id' }] }),
  password: text({ secret: true }),
  project_name: text({
    aliases: [{ name: 'project-name' }, { name: 'tenant-name' }, { name: 'tenant_name' }],
  }),
  project_id: text({ aliases: [{ name: 'project-id' }, { name: 'tenant-id' }, { name: 'tenant_id' }] }),
  user_domain_name: text({ aliases: [{ name: 'user-domain-name' }] }),
  user_domain_id: text({ aliases: [{ name: 'user-domain-id' }] }),
  project_domain_name: text({ aliases: [{ name: 'project-domain-name' }] }),
  project_domain_id: text({ aliases: [{ name: 'project-domain-id' }] }),
  default_domain_name: text({ aliases: [{ name: 'default-domain-name' }] }),
  default_domain_id: text({ aliases: [{ name: 'default-domain-id' }] }),
  system_scope: text({ aliases: [{ name: 'system-scope' }] }),
  application_credential_id: text(),
  application_credential_name: text(),
  application_credential_secret: text({ secret: true }),
  cafile: text(),
  certfile: text(),
  keyfile: text(),
  insecure: flag({ default: false }),
  timeout: integer(),
};

/** [keystone_authtoken]: how tokens of REST callers are checked. */
export const authTokenOptions = {
  ...keystoneAuthOptions,
  www_authenticate_uri: text({ aliases: [{ name: 'auth_uri' }] }),
  region_name: text(),
  interface: text({ default: 'internal' }),
  token_cache_time: integer({ default: 300 }),
  service_token_roles: list({ default: ['service'] }),
  service_token_roles_required: flag({ default: false }),
};

/** [service_user]: the token that goes with a user's token to other services. */
export const serviceUserOptions = {
  ...keystoneAuthOptions,
  send_service_user_token: flag({ default: false }),
};

/** [barbican_service_user]: the token that goes with a user's token to Barbican (castellan). */
export const barbicanServiceUserOptions = keystoneAuthOptions;

/** [key_manager] */
export const keyManagerOptions = {
  backend: text({ default: 'barbican', aliases: [{ group: 'key_manager', name: 'api_class' }] }),
  fixed_key: text({ secret: true, aliases: [{ group: 'keymgr' }] }),
};

/** [barbican] */
export const barbicanOptions = {
  barbican_endpoint: text(),
  barbican_api_version: text(),
  auth_endpoint: text({
    default: 'http://localhost/identity/v3',
    aliases: [{ group: 'key_manager', name: 'auth_url' }],
  }),
  retry_delay: integer({ default: 1 }),
  number_of_retries: integer({ default: 60 }),
  verify_ssl: flag({ default: true }),
  verify_ssl_path: text(),
  barbican_endpoint_type: choice(['public', 'internal', 'admin'], { default: 'public' }),
  barbican_region_name: text(),
  send_service_user_token: flag({ default: false }),
};
