/**
 * Credentials at Keystone and the key manager: names, types and defaults of keystoneauth (loading/), cinder/service_auth.py, and
 * castellan (options.py, key_manager/barbican_key_manager.py).
 */
import { choice, flag, integer, text } from './option.ts';

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

/** [keystone_authtoken]: the service's own credentials. Nobody's token is checked, so nothing else of the section is read. */
export const authTokenOptions = keystoneAuthOptions;

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
  verify_ssl: flag({ default: true }),
  verify_ssl_path: text(),
  barbican_endpoint_type: choice(['public', 'internal', 'admin'], { default: 'public' }),
  barbican_region_name: text(),
  send_service_user_token: flag({ default: false }),
};
