//! Checking declarations without starting anything: all that is wrong with them at once.

use super::{
    instance::Instance,
    plugins::{Plugins, check_names},
};
use crate::{config_file::WrongKeys, declaration::PluginDeclaration, error::BrokerError};

impl Plugins {
    /// What is wrong with these declarations.
    pub(crate) fn check(&self, declarations: Vec<PluginDeclaration>) -> Vec<BrokerError> {
        let mut errors: Vec<_> = check_names(&declarations).err().into_iter().collect();
        self.prepare_libraries(&declarations.iter().collect::<Vec<_>>());
        errors.extend(declarations.into_iter().flat_map(|declaration| self.check_one(declaration)));
        self.libraries.forget_prepared();
        errors
    }

    /// A plugin reports the first key that is wrong: that is left out, and it is asked again.
    fn check_one(&self, mut declaration: PluginDeclaration) -> Vec<BrokerError> {
        let plugin = declaration.name.clone();
        let mut wrong = WrongKeys::default();
        let mut others = Vec::new();
        loop {
            let instance = Instance::candidate(declaration.clone(), self.core.clone());
            let configured = self.configure_one(&instance);
            instance.discard();
            match configured {
                Ok(()) => break,
                Err(BrokerError::Configure { error, .. }) => {
                    if !wrong.leave_out(error, &mut declaration.config) {
                        break;
                    }
                }
                Err(error) => {
                    others.push(error);
                    break;
                }
            }
        }
        let configure = |error| BrokerError::Configure { plugin: plugin.clone(), error };
        wrong.errors.into_iter().map(configure).chain(others).collect()
    }
}
