// USTACK_TRUST=credentials: a process that gives up root leaves the host's memory before it does, and keeps
// what it has open as ends outside (escape.h). From then on the keeper checks all that it asks for, as it
// does for any program outside; what is left of the host it can neither read nor change.
//
//   worker of nginx:  fork --- setuid(www-data)
//                               |  listeners and connections -> the keeper's ends, on the same numbers
//                               |  the host's memory is unmapped, its descriptors are closed
//                               '- the real setuid()
//
// It is the one that loses rights that leaves, not its relatives that keep them: at this moment it still runs
// what they trust, so nothing has to be believed that it may have written, and they go on at full speed.
#pragma once

#include "stack/base/result.h"

namespace ustack::shim::parting {

/// Before the real call of a process that is about to give up root: leaves the host if it has one and the
/// user wants that (Config::parts_by_credentials). EAGAIN: it can't (it has several threads, there is no
/// keeper, an end is not to be had), and must not give up root either; it may have some ends already. Not in
/// a Scope, without the lock.
Status before_root_is_given_up();

}  // namespace ustack::shim::parting
