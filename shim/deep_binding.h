// Libraries that a program opens with RTLD_DEEPBIND (dlopen(3)): PHP's extensions, and with them libcurl and
// libpq. They look for their symbols in themselves and in what they need before they look in what is
// preloaded, and so are bound to libc's own entries. What is bound past a hook is bound to the hook here; all
// else is left to them.
#pragma once

namespace ustack::shim::deep_binding {

/// dlopen(3) of a file named with its path: opens it, and binds what has been loaded by that to our hooks.
/// Takes the dynamic linker's locks; not in a Scope.
void* open(const char* file, int flags);

}  // namespace ustack::shim::deep_binding
