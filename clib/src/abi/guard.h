// Exceptions turned into the codes and texts of the C interface.
#pragma once

#include <new>
#include <stdexcept>
#include <string>

#include "abi/misuse.h"

namespace dlavm::abi {

// Sets the text of the thread's last failure, which dlavm_error(NULL) shows; returns `status`.
int failed(int status, const std::string& text);

// Runs `call(text)`, which returns 0, or a positive code and sets the text. What it throws becomes a negative
// one; `fail(status, text)` reports.
template <class Call, class Fail>
int guarded(Call call, Fail fail) {
    try {
        std::string text;
        const int code = call(text);
        return code == 0 ? DLAVM_OK : fail(code, text);
    } catch (const Misuse& misuse) {
        return fail(misuse.status, misuse.text);
    } catch (const std::bad_alloc&) {
        return fail(DLAVM_SYSTEM, "out of memory");
    } catch (const std::exception& e) {
        return fail(DLAVM_SYSTEM, e.what());
    }
}

}  // namespace dlavm::abi
