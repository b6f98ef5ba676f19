/** kysely's words for MySQL and MariaDB. */
import { MysqlAdapter, MysqlIntrospector, MysqlQueryCompiler, type Dialect, type Driver } from 'kysely';

export function createMysqlDialect(driver: Driver): Dialect {
  return {
    createAdapter: () => new MysqlAdapter(),
    createDriver: () => driver,
    createIntrospector: (kysely) => new MysqlIntrospector(kysely),
    createQueryCompiler: () => new MysqlQueryCompiler(),
  };
}
