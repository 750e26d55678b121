// What the keeper keeps mapped of the program that it was cloned from: the library, libc, the dynamic linker,
// its thread's TLS, the vdso and the arena. All else is the program's, and goes.
#pragma once

namespace ustack::shim::keeper {

/// Before the clone, in the program: notes where the objects are that the keeper calls into. Not in a signal
/// handler; takes the dynamic linker's lock the first time.
void note_objects();
/// In the keeper, on its own stack (in the arena): unmaps all but what it needs. Does nothing where another
/// library stands in front of one of libc's functions that the keeper uses (libfaketime, ...), and in builds
/// with a sanitizer: what those need can't be known.
void unmap_program();

}  // namespace ustack::shim::keeper
