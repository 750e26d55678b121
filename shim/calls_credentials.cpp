// Hooks of what may give up root for good (credentials(7)). Those that keep root among the real, effective
// and saved user have given up nothing: seteuid(2) always does.
#include <unistd.h>

#include "io/syscalls.h"
#include "shim/hooks.h"
#include "shim/parting.h"
#include "shim/process.h"
#include "shim/scope.h"

namespace ustack::shim {

namespace {

constexpr uid_t kAsBefore = static_cast<uid_t>(-1);

struct Users {
  uid_t real, effective, saved;
  bool any_root() const { return real == 0 || effective == 0 || saved == 0; }
};

Users users_now() {
  Users now{};
  io::sys::call(SYS_getresuid, io::sys::arg(&now.real), io::sys::arg(&now.effective),
                io::sys::arg(&now.saved));
  return now;
}

uid_t chosen(uid_t wanted, uid_t now) { return wanted == kAsBefore ? now : wanted; }

/// `result` of the real call, unless the process has to leave its host before and can't. One that has none
/// makes it (a server that takes its user before it listens).
template <typename Real>
int change(const Users& now, const Users& next, Real&& real) {
  if (now.any_root() && !next.any_root()) {
    if (!Scope::inside()) Process::make_host_while_root();
    if (Status s = parting::before_root_is_given_up(); !s.ok()) {
      errno = s.code();
      return -1;
    }
  }
  return real();
}

}  // namespace

namespace hook {

int setuid(uid_t user) {
  const Users now = users_now();
  // Without CAP_SETUID only the effective one changes.
  const Users next = now.effective == 0 ? Users{user, user, user} : Users{now.real, user, now.saved};
  return change(now, next, [&] { return real::setuid(user); });
}

int setreuid(uid_t real_user, uid_t effective) {
  const Users now = users_now();
  Users next{chosen(real_user, now.real), chosen(effective, now.effective), now.saved};
  if (real_user != kAsBefore || (effective != kAsBefore && effective != now.real))
    next.saved = next.effective;
  return change(now, next, [&] { return real::setreuid(real_user, effective); });
}

int setresuid(uid_t real_user, uid_t effective, uid_t saved) {
  const Users now = users_now();
  const Users next{chosen(real_user, now.real), chosen(effective, now.effective), chosen(saved, now.saved)};
  return change(now, next, [&] { return real::setresuid(real_user, effective, saved); });
}

}  // namespace hook
}  // namespace ustack::shim
